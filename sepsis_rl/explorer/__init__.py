"""`lightning explore`: what policies do state by state and patient by patient, on one page."""
