"""Rounds: what may be done with them, and the state machine that carries them on."""
