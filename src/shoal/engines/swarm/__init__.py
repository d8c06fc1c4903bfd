"""The engine on Docker Swarm: one service a revision, made, scaled and watched through the Docker Engine API."""
