# The serial number of a virtio disk holds the first 20 characters of the volume's id, and udev makes a link from it.
output "devices" {
  description = "<node>/<volume> -> path on the node, the same across boots."
  value       = { for key, attachment in openstack_compute_volume_attach_v2.data : key => "/dev/disk/by-id/virtio-${substr(attachment.volume_id, 0, 20)}" }
}
