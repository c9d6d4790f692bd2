"""Operations: each folder holds one, as plain torch that reads like its definition (``naive``) and as fast versions."""
