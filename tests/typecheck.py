"""The checker behind `--jaxtyping-packages`: an int is a float, as every type checker says."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
