"""This machine as an engine: supervised process groups.

A fleet's state directory, all of it the user's own (directories 0700, files 0600):

    lock                                    held by the one engine that works on it; its pid
    agents/<agent>/agent.json               revisions, counts, how many replicas were ever made
    agents/<agent>/run-ids                  the newest run ids that were started, a line each
    agents/<agent>/lives/<id>/state.json    a replica's or a run's manifest: phase, process, port, reason
    agents/<agent>/lives/<id>/exit-<n>      how its n-th start ended, written by the leader
    agents/<agent>/lives/<id>/secrets       a link to $SHOAL_SECRETS in memory, or the directory itself (files 0400)
    agents/<agent>/lives/<id>/tmpfs         the same for what $SHOAL_TMPFS_<PATH> names
    agents/<agent>/logs/<id>/               what it wrote; stays a while after it is gone
    volumes/shared/<name>                   a volume; not touched when its agents are removed
    volumes/owned/<agent>/<ordinal>/<name>  a stateful agent's volumes
    platform/                               gateway and broker

Law: `render` is pure; `launch` and `process` act; a life is changed by its own task alone.
"""
