"""Operations: one public function each, a readable torch reference and an optional native kernel."""
