"""How far estimates from recorded episodes can be trusted, held against the truth."""
