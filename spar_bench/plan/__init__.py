"""The plan of a sweep: its trials, their stages, and what they will take."""
