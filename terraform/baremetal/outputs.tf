output "nodes" {
  description = "Node name -> its machine, after schemas/machines.json."
  value       = module.contract.nodes
}
