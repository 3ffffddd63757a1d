output "address" {
  description = "Public address; stays when the bastion is replaced."
  value       = google_compute_address.bastion.address
  depends_on  = [google_compute_instance.bastion]
}
