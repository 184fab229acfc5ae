"""Trial of a cluster: a sweep run calmly and again while its tasks, jobs, nodes and driver are killed, and whether both end alike."""
