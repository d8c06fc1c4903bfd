"""What agents import. Law: light to import, and depends on nothing else of Shoal."""
