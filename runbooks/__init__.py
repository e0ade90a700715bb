"""What to do when an alarm rings. `names` has which runbooks there are and what calls for each."""
