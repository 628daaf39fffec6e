# ruff: noqa: N815 - the names are those of the API
"""What KubeRay's RayService takes, written down from its API reference (ray.io/v1, 1.5.1).

The resource definition itself is in no package: these are the fields that our file uses and those
beside them, and any other is an error. Pods and services are checked against Kubernetes' own
schema, see test_kuberay.py.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Object = dict[str, Any]
Strings = dict[str, str]
Name = Annotated[str, Field(pattern=r"^[a-z]([a-z0-9\-]{0,48}[a-z0-9])?$")]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Object(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(_Object):
    name: Name
    labels: Strings = {}
    annotations: Strings = {}


class Credential(_Object):
    value: str | None = None
    valueFrom: Object | None = None


class GcsFaultTolerance(_Object):
    redisAddress: str
    redisUsername: Credential | None = None
    redisPassword: Credential | None = None
    externalStorageNamespace: str | None = None


class AuthOptions(_Object):
    mode: Literal["token", "disabled"]


class AutoscalerOptions(_Object):
    upscalingMode: Literal["Default", "Aggressive", "Conservative"] | None = None
    idleTimeoutSeconds: Count | None = None
    resources: Object | None = None
    securityContext: Object | None = None
    image: str | None = None
    env: list[Object] = []
    envFrom: list[Object] = []


class HeadGroup(_Object):
    rayStartParams: Strings
    template: Object
    serviceType: Literal["ClusterIP", "NodePort", "LoadBalancer"] | None = None


class WorkerGroup(_Object):
    groupName: Name
    replicas: Count = 0
    minReplicas: Count
    maxReplicas: Count
    idleTimeoutSeconds: Count | None = None
    numOfHosts: Count = 1
    rayStartParams: Strings
    template: Object


class RayCluster(_Object):
    rayVersion: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    authOptions: AuthOptions | None = None
    gcsFaultToleranceOptions: GcsFaultTolerance | None = None
    enableInTreeAutoscaling: bool = False
    autoscalerOptions: AutoscalerOptions | None = None
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup] = []


class UpgradeStrategy(_Object):
    type: Literal["NewCluster", "None"]


class Spec(_Object):
    upgradeStrategy: UpgradeStrategy | None = None
    rayClusterDeletionDelaySeconds: Count | None = None
    excludeHeadPodFromServeSvc: bool = False
    serveService: Object | None = None
    serveConfigV2: str
    rayClusterConfig: RayCluster


class RayService(_Object):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayService"]
    metadata: Metadata
    spec: Spec
