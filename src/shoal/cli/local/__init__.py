"""The fleets of this machine, as the command line reaches them: files, processes and sockets below one directory."""
