"""YAML as users write it; a key that is written twice is an error, as the YAML standard demands."""

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the last of two equal keys without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:  # noqa: ANN401 - as PyYAML
        """Compose a mapping. Raises yaml.MarkedYAMLError for a key that is written twice."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key.value}' is written twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


def read_yaml(text: str) -> Any:  # noqa: ANN401 - whatever the file has
    """Parse a document. Raises yaml.YAMLError."""
    return yaml.load(text, Loader)
