"""The agent that Shoal has on every node of a Swarm, where a manager can't see: it measures the fleet's containers,
probes them, ends those that are dead, and runs commands in them for who may.

The law: `health`, `census` and `meter` are pure; `agent` acts on the node's Docker; `server` only tells. It schedules
nothing, and a controller that is away changes nothing for it.
"""
