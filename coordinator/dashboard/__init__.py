"""The consortium's web dashboard: rounds, sites, reports and users, for people with a browser.

Pages are made on the server; what they do goes through `coordinator.rounds.api` and
`coordinator.enrolment`. A route that does not declare who may use it is refused to everybody
(`coordinator.dashboard.access`).
"""
