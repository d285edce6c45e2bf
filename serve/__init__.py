"""The assistant: retrieval, gate, API, web page, ratings."""
