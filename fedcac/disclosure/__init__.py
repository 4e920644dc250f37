"""The site's disclosure policy, checks and the gate."""
