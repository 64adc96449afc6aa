"""A loaded SavedModel once more, its weights constants of the graph.

oneDNN computes with weights in a layout of its own. Of a constant it makes that once; of a variable, which could
change, anew in each run. Where a convolution is as quick as with AMX, that is nearly half of what a lone picture takes.
"""

import logging
from collections.abc import Collection
from typing import Any

import tensorflow as tf

from serving.server.logs import event


def graph_of_constants(session: Any, tensors: Collection[str]) -> tf.Graph | None:
    """What the tensors need of the session's graph, under the same names.

    None where that is more than weights to read: a table, a queue, a variable that is written.
    """
    names = sorted({tensor.split(":")[0] for tensor in tensors})
    graph = tf.Graph()
    try:
        whole = session.graph.as_graph_def()
        definition = tf.compat.v1.graph_util.convert_variables_to_constants(session, whole, names)
        with graph.as_default():
            tf.import_graph_def(definition, name="")
    except Exception as error:  # whatever cannot be converted can be run as it is
        reason = str(error).split("\n", 1)[0]
    else:
        resources = [node.name for node in graph.get_operations() for out in node.outputs if out.dtype == tf.resource]
        if not resources:
            return graph
        reason = f"the graph needs {resources[0]}"
    event(logging.INFO, "the weights stay variables", reason=reason)
    return None
