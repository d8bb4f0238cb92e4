"""Sound over the border: checked reference clips come in, encoded files go out."""
