"""The end of every build, import and view: README and manifest of what is there."""

from dataclasses import replace

from builder.builds.growth import lists_fewer
from builder.shards.halfway import forget_finished
from release.files.commit import remove_temporaries
from release.files.storage import ReleasePath, exists
from release.layout.index_writing import remove_unnoted_indices
from release.layout.manifest import Manifest, standing_manifest
from release.layout.readme import loads_as_stated, remove_documents, write_documents
from release.layout.training_views import with_views_of


def finish_release(release: ReleasePath, manifest: Manifest) -> Manifest:
    """Write README, then manifest, unless they stand there already, whole; leave no litter.

    What render-card wrote about an earlier state goes, since it tells of other files. Training
    views stay, as far as what they were made from does. A manifest that lists more than `manifest`
    stays: what it lists and could not be made again is damaged. Of an extension that was killed
    what is halfway stays, too. Returns the manifest that stands.
    """
    remove_temporaries(release)
    forget_finished(release, [record.path for record in manifest.shards])
    earlier = standing_manifest(release)
    manifest = with_views_of(manifest, earlier)
    if earlier is not None and lists_fewer(manifest, earlier):
        return earlier
    standing = manifest.is_written(release)
    if earlier is not None and standing and loads_as_stated(release, manifest):
        remove_unnoted_indices(release, earlier)
        return earlier
    noted = earlier.documents if earlier else {}
    kept = {n: sha256 for n, sha256 in noted.items() if standing and exists(release / n)}
    new = replace(manifest, documents=kept | write_documents(release, manifest))
    new.write(release)
    remove_documents(release, noted.keys() - new.documents.keys())
    remove_unnoted_indices(release, new)
    return new
