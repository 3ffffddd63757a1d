output "address" {
  description = "Its public address."
  value       = google_compute_address.front.address
}
