"""From the data there are to daily series and attributes on the sites of a dataset."""
