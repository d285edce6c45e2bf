"""The service: an OpenAI-compatible API in front of an engine, with sources, checks, limits and ratings."""
