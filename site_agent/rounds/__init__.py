"""A site's part of a round: verify, approve, answer through the gate, let go."""
