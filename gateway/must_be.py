"""What a value must be, in words for who never heard of pydantic: of a case, and of panel.toml."""

from pydantic_core import ErrorDetails

# By pydantic's kinds of errors.
WHAT_IT_MUST_BE = {
    "missing": "is required; send it",
    "string_type": "must be a text",
    "string_unicode": "holds half a character; send whole ones",
    "tuple_type": "must be a list of {items}",
    "model_type": "must be {table}",
    "model_attributes_type": "must be {table}",
    "dict_type": "must be {table}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a number that ends",
    "literal_error": "must be {expected}",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must hold at least {min_length}, not {actual_length}",
    "too_long": "must hold at most {max_length}, not {actual_length}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
}


def what_it_must_be(wrong: ErrorDetails, table: str, items: str = "texts") -> str | None:
    """Of one error of pydantic's, "must be …"; None for a kind that stands in no field of ours.
    `table` is what an object is called where it stands, `items` what is in the list."""
    words = WHAT_IT_MUST_BE.get(wrong["type"])
    return words and words.format(table=table, items=items, **wrong.get("ctx", {}))
