output "network" {
  description = "The network."
  value       = google_compute_network.site.id
}

output "gateway_subnetwork" {
  description = "Subnet of the bastion."
  value       = google_compute_subnetwork.gateways.id
}

output "node_subnetwork" {
  description = "Subnet of the nodes. Named once they can reach the internet: a node that boots before waits for mirrors in vain."
  value       = google_compute_subnetwork.nodes.id
  depends_on  = [google_compute_router_nat.site]
}
