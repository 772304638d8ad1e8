# Process 1 of a node's own namespaces: prepares the mounts, says "ready", then waits and takes in orphans.
# When it ends, everything in the namespaces ends.
set -e
state=$1

# Mounts are private to the node (unshare saw to that), and shared among its containers, as kubelet expects.
mount --make-rshared /

# Kubernetes, containerd and CNI write to fixed places; here they are the node's own.
mount -t tmpfs -o mode=755 tmpfs /run
mount --bind "$state/var/lib" /var/lib
mount --bind "$state/var/log" /var/log

# kubelet sets these for the whole machine, namespaces or not. A laptop should not reboot on a kernel oops because a
# test ran on it, so kubelet finds the values it wants in plain files, and has nothing to set.
mkdir /run/kernel
keep() {
    file=/run/kernel/$(basename "$1")
    echo "$2" >"$file"
    mount --bind "$file" "/proc/sys/$1"
}
keep vm/overcommit_memory 1
keep vm/panic_on_oom 0
keep kernel/panic 10
keep kernel/panic_on_oops 1
keep kernel/keys/root_maxkeys 1000000
keep kernel/keys/root_maxbytes 25000000

ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# The machine knows the node's address, not those of its pods.
iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE

echo ready
exec >/dev/null
sleep infinity &
while true; do wait; done
