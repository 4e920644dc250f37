"""The coordinator's database: sites, rounds, parcels, events and leases."""
