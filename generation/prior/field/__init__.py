"""What a head carries, on its own chart: `HeadField`, and what a portrait shows of it: `ObservedField`."""
