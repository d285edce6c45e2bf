"""Raw patents to clean, tokenised, packed shards; instruction data to chats. `data` imports only `core`."""
