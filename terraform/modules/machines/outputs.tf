output "nodes" {
  description = "Node name -> its machine, after schemas/machines.json."
  value       = module.contract.nodes
}

output "records" {
  description = "Record (api, *) -> addresses, and balanced: whether the one address is a load balancer's. Only of classes that have nodes."
  value       = local.records
}
