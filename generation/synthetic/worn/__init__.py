"""What composed heads wear: hats, glasses, jewellery, collars."""
