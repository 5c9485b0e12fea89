"""What finished runs amount to, and how far estimates can be trusted."""
