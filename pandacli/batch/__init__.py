"""Questions in, answers out: thousands of them, nothing lost and nothing computed twice."""
