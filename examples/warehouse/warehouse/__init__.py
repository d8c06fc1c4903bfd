"""A warehouse run by agents of six kinds: small, but each does real work. Copy what you need."""
