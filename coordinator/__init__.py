"""The coordinator: launches rounds, pools released aggregates and writes the report."""
