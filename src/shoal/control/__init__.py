"""Clock, store, and the loop that observes, decides and acts: the only place that ties the parts together."""
