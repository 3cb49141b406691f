package fsview

// readme is the file README of the tree.
const readme = `This is a container store: its layers, images and containers, as files.
It is the store that podman, buildah and skopeo use; changes here are changes there.

Look
  ls images/                        one directory an image, under its oldest name
  cat images/NAME/digest            one value a file; ls shows which there are
  ls images/NAME/tree/etc           what is in it, without mounting anything
  cat diff/image:A..image:B/changes what differs between any two objects
  ls -l images/by-name images/by-id layers/by-digest
  cat events                        what changed lately, as JSON lines; events.follow waits for more

Make: mkdir, and where you make it says what from
  mkdir images/NAME/containers/web  a container of an image
  mkdir containers/empty            a container of nothing
  mkdir layers/base                 a layer; layers/base/children/top one on top of it
  mkdir layers/top/images/app       an image of a layer
  tar c . > layers/base/diff.tar    the content of a layer
  mkdir drafts/x; ... ; mv -T drafts/x containers/web     with an ID, maps, labels, data

  cp app.tar images/import/         the images of an OCI or docker-save archive
  cat images/X/oci.tar > app.tar    and out again

Change
  mv containers/web containers/api  another name
  ln -s ../web containers/by-name/w one more name; rm removes one
  echo NAME >> images/X/names       the same
  ls containers/api/merged          mounts it: read and write there
  echo umount > containers/api/ctl  and lets go of it
  cp FILE images/X/bigdata/KEY      a data item

Delete
  rmdir containers/api              refused with EBUSY while something uses it: ls used-by

A slash in a name is written %2F, a percent sign %25, in names of directories.
When something fails: cat error in the object, or error_log here, or
getfattr -n user.plyfs.error. The sentence says what to do.
`
