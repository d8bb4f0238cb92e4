"""Two bodies of the Store."""
