package main

// commonScript is run on every driver. Its lines build on each other.
const commonScript = `
# Making layers.
create-layer -i l1 -n n1 -n n2
createlayer --id=l0
create-layer -i l5 ""
import-layer -i l2 -n imp l1 <a.tar
importlayer -i l2z -f a.tar.gz
import-layer -i l2zs -f a.tar.zst
import-layer -i l2bz -f a.tar.bz2
import-layer -i l2xz -f a.tar.xz
import-layer -j -i l3 -r <a.tar
create-layer -j -i l4 -l lab -n x
create-layer --json=1 --id=l6
create-layer -n one
create-layer -j
create-layer -i l1
create-layer -n n1
create-layer nope
create-layer a b
create-layer --id
create-layer -i
create-layer --bad
create-layer -x
create-layer --uidmap bad
create-layer --uidmap 0:1
create-layer --uidmap 0:1:2:3
create-layer --uidmap 0:100:10 --hostuidmap
create-layer --subuidmap nobody-of-that-name
create-layer -i l9 --hostuidmap --hostgidmap -j
import-layer -f no-such-file
import-layer a b
import-layer -i broken <short.tar
exists broken

# Making images.
create-image
create-image -i i1 -n in1 -n in2 -m '{"x":1}' l2
createimage -j -i i2 -d sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 ""
create-image -d bad ""
create-image -i i3 -f mf l3
create-image -i i4 -f no-such-file
create-image nope
create-image -i i1
create-image -n in1
create-image l1 l2

# Making containers.
create-container
create-container -i kc1 -n cn1 -m cm i1
createcontainer -j -i kc2 -n c2n in1
create-container -i kc3 ""
create-container -i kc1 i1
create-container -n cn1 i1
create-container nope
create-container -i c4 -f no-such-file i1
create-container -i kc6 i1 late

# Looking.
layers
layers -t
layers --tree=false
layers --tree=maybe
layers -j
layers -jt
layers extra
layers -- -j
layer l1 l2
layer -j l1 l2
layer nope
layer -j nope l1
layer l1 nope l2
layer l4
layer l9 l3
layer
images
images -q
images -j
images -qj
image i1 in2
image -j i1
image nope
image -j nope
image i1 nope i3
image i2
image
containers
containers -j
container kc1 cn1
container kc2 kc3
container -j kc1
container nope
container -j kc1 nope
container
exists l1 i1 kc1 nope # sorted
exists l1
exists -j l1 nope
exists -q l1
exists -q nope
exists -l l1 i1 # sorted
exists -i i1 l1 # sorted
exists -c kc1 i1 # sorted
exists -li l1 i1 kc1 # sorted
exists
exists -jq l1
exists imp in2 cn1 # sorted

# Big data.
set-image-data -f dat i1 manifest
setimagedata i1 key2 <dat
set-image-data i1 'Some:Key' <dat
set-container-data kc1 ck <dat
setcontainerdata -f dat cn1 ck2
set-layer-data l1 lk <dat
setlayerdata n1 lk2 <empty
set-layer-data nope lk2 <dat
set-image-data nope k <dat
set-container-data nope k <dat
set-image-data -f no-such-file i1 k
set-image-data i1
list-image-data i1
listimagedata -j i1
list-image-data nope
list-image-data i2
list-image-data -j i2
list-image-data i1 x
list-image-data
list-layer-data l1
listlayerdata -j n1
list-layer-data nope
list-layer-data l2
list-layer-data -j l2
list-container-data kc1
listcontainerdata -j kc1
list-container-data kc3
list-container-data -j kc3
list-container-data nope
get-image-data i1 manifest
getimagedata in1 Some:Key
get-image-data in1 nokey
get-image-data nope k
get-image-data -f out i1 manifest
get-image-data -f /no-such-directory/x i1 manifest
get-image-data i1
get-image-data i1 a b
get-layer-data l1 lk
getlayerdata n1 lk2
get-layer-data l1 nokey
get-layer-data nope nokey
get-container-data kc1 ck
getcontainerdata kc1 ck2
get-container-data kc1 nokey # status: theirs tells the path that it did not find
get-container-data nope nokey
get-image-data-size i1 manifest
getimagedatasize i1 no
get-image-data-size nope no
get-image-data-digest i1 manifest
getimagedatadigest i1 no
get-image-data-digest nope no
get-container-data-size kc1 ck
getcontainerdatasize kc1 no
get-container-data-digest kc1 ck
getcontainerdatadigest kc1 no
get-container-data-digest nope no
image i1
image -j i1
images
container kc1
container -j kc1
containers
layer -j l1
images-by-digest sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
images-by-digest -q sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
images-by-digest -j sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
images-by-digest -qj sha256:0000000000000000000000000000000000000000000000000000000000000000
images-by-digest sha256:0000000000000000000000000000000000000000000000000000000000000000
images-by-digest bad
images-by-digest

# Directories.
get-container-dir kc1
getcontainerdir cn1
get-container-dir nope
get-container-dir
get-container-run-dir kc1
getcontainerrundir kc1
get-container-run-dir nope

# Metadata.
metadata i1
metadata in1 kc1 l1
metadata -q i1 kc1
metadata -j i1 kc1 l1
metadata -qj i1
metadata nope
metadata i1 nope kc1
metadata -j i1 nope
metadata
set-metadata i1
set-metadata -m new i1
setmetadata -f mf kc1
metadata i1 kc1
set-metadata -f tree/d/f kc1
metadata -q kc1 i1
metadata kc1
set-metadata -f mf kc1
set-metadata -m x nope
set-metadata -m a -f mf l1
metadata l1
set-metadata -f no-such-file l1
set-metadata -m x l1 l2
set-metadata

# Diffs.
changes l1
changes l2 # sorted
changes -j l2 # sorted
changes -j l5
changes nope
changes l2 l1 # sorted
changes l2 l1 x
changes
diffsize l2
diff-size l2
diffsize nope
diffsize l2 l1
diffsize
diff -f out.tar l2
diff l2
diff -u l2zs
diff -f out.gz -c l2
diff -x l2
diff -b l2
diff nope
diff -f /no-such-directory/x l2
diff
applydiff l5 <a.tar
changes l5 # sorted
diff l5
apply-diff -f a.tar l5
apply-diff -f b.tar l5 # differs: on overlay, theirs cannot take a whiteout of what the layer has itself
layer l5
applydiff l0 <empty
applydiff -f no-such-file l0
applydiff nope <a.tar
applydiff
applydiff l1 x
applydiff l0 <short.tar
applydiff l0 <rubbish
applydiff l0 <short.gz
changes l0 # status: theirs keeps what came before the break

# Mounts.
create-layer -i m1
create-layer -i m2
mount m1
mounted m1
mounted m2
mounted
mount -j m1 m2
unmount m1
mounted m1
umount m1
unmount m1
unmount m2
unmount nope
unmount
mount
mount nope
mount -j nope
mount m1 nope
unmount m1
mount -o nodev,noexec kc3
mounted kc3
shutdown
unmount kc3
unmount -f kc3
mount -x
layer-parent-owners l2
layer-parent-owners -j l2
layer-parent-owners nope
layer-parent-owners
container-parent-owners kc1 cn1
container-parent-owners -j kc1
container-parent-owners nope
container-parent-owners -j nope kc1
container-parent-owners

# Names.
get-names i1
getnames -j i1
get-names l0
get-names -j l0
get-names nope
get-names i1 l1
get-names
add-names -n new1 -n new2 i1
add-names -j -n new3 i1 # sorted
addnames -n new4 l0
add-names -n z nope
get-names i1 # sorted
set-names -n only i1
setnames -j -n only -n only2 i1
set-names i1
set-names -j i1
set-names -n n1 m1
set-names -n q nope
set-names -n dup -n dup m2
get-names m2
get-names l1
add-names
set-names

# Deleting.
delete-layer l1
delete-layer l2
delete-layer nope
delete-layer -j l0
deletelayer l6 m1
delete-layer
create-image -i di m2
delete-layer m2
delete-image -t di
delete-image -tj di
deleteimage di
delete-image i1
delete-image nope
delete-image -j nope
delete-image
delete-container nope
delete-container -j nope
delete-container kc1
deletecontainer -j kc2
delete-image -j i1
delete l5
delete -j kc3 i3
delete nope
delete
layers
images
containers
status
status -j
shutdown
shutdown -j
wipe
wipe -j
layers
layers -t
images -j
containers -j
version # differs: theirs prints nothing, the one of 2025 its version
foo
foo --bad
--bad
help
`

// overlayScript follows on the overlay driver.
const overlayScript = `
# A chain of layers that is filled when it is there.
create-layer -i f1
create-layer -i f2 f1
create-layer -i f3 f2
create-image -i fi f3
applydiff f1 <a.tar
apply-diff -f plain.tar f2
apply-diff -f b.tar f3
layer -j f1 f2 f3
diff f1
diff f2
diff f3
image fi
delete-image fi

import-layer -i o1 <a.tar
create-layer -i o2 o1
create-image -i oi -n oin o2
mount oi
mount -r oi
mount -r -j oi
unmount oi
unmount oi
create-container -i oc oin
mount oc
mount oc
unmount oc
mounted oc
unmount oc
create-layer -i o3 o1
copy dat o3:/x
copy --chown 3:4 dat o3:/y
copy o1:/d o3:/z
copy dat o3:/z
copy no-such-file o3:/x
copy nope:/d o3:/z
copy dat nope:/z
copy -chown 3:4 dat oc:/k
changes o3 # sorted
diffsize o3
shutdown
`

// vfsScript follows on the vfs driver.
const vfsScript = `
import-layer -i o1 <a.tar
create-layer -j -i p1 --uidmap 0:100:10 --gidmap 0:200:10
create-layer -j -i p2 p1
create-layer -j -i p3 --hostuidmap --hostgidmap p1
layer p1 p2 p3
create-image -i pi p1
create-container -j pi
create-container -j --uidmap 0:300:10 --gidmap 0:300:10 pi
image pi
layers -t
mount o1
mounted o1
unmount o1
`
