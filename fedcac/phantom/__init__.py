"""Generated exam pairs with known truth."""
