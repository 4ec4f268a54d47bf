"""Ray: start or connect, deployments, jobs."""
