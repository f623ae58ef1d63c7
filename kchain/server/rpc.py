"""Which function answers which of Kaggle's methods. The address is POST /api/v1/{service}/{method}."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kchain.server import blobs, dataset_uploads, datasets, kernels, model_uploads, models, outputs, push, quota
from kchain.server.context import Context
from kchain.server.wire import Json


@dataclass(frozen=True)
class Redirect:
    """An answer that sends the client elsewhere (302)."""

    url: str


Method = Callable[[Context, str, Json], Json | Redirect]


def _redirect(address: Callable[[Context, str, Json], str]) -> Method:
    return lambda context, user, body: Redirect(address(context, user, body))


_KERNELS: dict[str, Method] = {
    "SaveKernel": push.save_kernel,
    "GetKernelSessionStatus": kernels.status,
    "GetKernel": kernels.get,
    "ListKernels": kernels.listing,
    "DeleteKernel": kernels.delete,
    "CancelKernelSession": kernels.cancel,
    "ListKernelSessionOutput": outputs.list_outputs,
    "ListKernelFiles": outputs.list_files,
    "DownloadKernelOutput": _redirect(outputs.download),
    "GetAcceleratorQuotaStatistics": quota.statistics,
}
_DATASETS: dict[str, Method] = {
    "CreateDataset": dataset_uploads.create,
    "CreateDatasetVersion": dataset_uploads.create_version,
    "CreateDatasetVersionById": dataset_uploads.create_version_by_id,
    "UpdateDatasetMetadata": dataset_uploads.update_metadata,
    "GetDatasetStatus": datasets.status,
    "GetDataset": datasets.get,
    "GetDatasetMetadata": datasets.metadata,
    "ListDatasetFiles": datasets.list_files,
    "ListDatasets": datasets.listing,
    "DeleteDataset": datasets.delete,
    "DownloadDataset": _redirect(datasets.download),
}
_MODELS: dict[str, Method] = {
    "CreateModel": model_uploads.create,
    "CreateModelInstance": model_uploads.create_instance,
    "CreateModelInstanceVersion": model_uploads.create_version,
    "GetModel": models.get,
    "GetModelInstance": models.get_instance,
    "ListModels": models.listing,
    "ListModelInstances": models.list_instances,
    "ListModelInstanceVersions": models.list_versions,
    "ListModelInstanceVersionFiles": models.list_files,
    "DownloadModelInstanceVersion": _redirect(models.download),
    "DeleteModel": models.delete,
    "DeleteModelInstance": models.delete_instance,
    "DeleteModelInstanceVersion": models.delete_version,
}
METHODS: dict[str, Method] = {
    "blobs.BlobApiService/StartBlobUpload": blobs.start,
    **{f"kernels.KernelsApiService/{method}": serve for method, serve in _KERNELS.items()},
    **{f"datasets.DatasetApiService/{method}": serve for method, serve in _DATASETS.items()},
    **{f"models.ModelApiService/{method}": serve for method, serve in _MODELS.items()},
}
