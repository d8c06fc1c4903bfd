"""The fleets on Docker Swarms, as the command line reaches them: by the Docker API, and by the controller's own."""
