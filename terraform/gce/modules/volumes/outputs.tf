output "devices" {
  description = "<node>/<volume> -> path on the node, the same across boots."
  value       = { for key, attachment in google_compute_attached_disk.data : key => "/dev/disk/by-id/google-${attachment.device_name}" }
}
