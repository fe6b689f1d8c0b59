"""stub"""
def worn_parts(recipe, surface, hair, fedora): return [], None
