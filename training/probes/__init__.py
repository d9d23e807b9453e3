"""Quick measurements of a network while it trains."""
