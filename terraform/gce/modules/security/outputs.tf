output "tags" {
  description = "nodes, bastion or a node class -> its network tag. Named when the rules are there."
  value       = local.tags
  depends_on  = [google_compute_firewall.class, google_compute_firewall.bastion]
}
