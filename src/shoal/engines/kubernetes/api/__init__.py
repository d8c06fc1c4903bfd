"""The Kubernetes API as far as Shoal uses it.

On aiohttp, which is here for other reasons: the typed clients cost a second HTTP stack or most of a second at each
start, and leave open what is hard: watches with bookmarks, strict validation, credential plugins of every version.
"""

from shoal.engines.kubernetes.api.client import Kubernetes
from shoal.engines.kubernetes.api.kinds import Kind
from shoal.engines.kubernetes.api.kubeconfig import Access, find_access
from shoal.engines.kubernetes.api.refusals import KubernetesError

__all__ = ["Access", "Kind", "Kubernetes", "KubernetesError", "find_access"]
